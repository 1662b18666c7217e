// What LaTeX's commands stand for. Facts of LaTeX and Unicode, as tables.

/** "alphaα betaβ": names and the sign that each ends with. */
function pairs(text) {
  return text
    .trim()
    .split(/\s+/)
    .map((pair) => [pair.slice(0, -[...pair].at(-1).length), [...pair].at(-1)]);
}

/** Letters, shown as identifiers. */
export const LETTERS = new Map(
  pairs(`
  alphaα betaβ gammaγ deltaδ epsilonϵ varepsilonε zetaζ etaη thetaθ varthetaϑ iotaι kappaκ varkappaϰ lambdaλ muμ nuν xiξ omicronο
  piπ varpiϖ rhoρ varrhoϱ sigmaσ varsigmaς tauτ upsilonυ phiϕ varphiφ chiχ psiψ omegaω GammaΓ DeltaΔ ThetaΘ LambdaΛ XiΞ PiΠ SigmaΣ
  UpsilonΥ PhiΦ PsiΨ OmegaΩ infty∞ ellℓ hbarℏ imathı jmathȷ alephℵ bethℶ wp℘ Reℜ Imℑ partial∂ nabla∇ emptyset∅ varnothing∅ top⊤ bot⊥
  angle∠ triangle△ diamondsuit♢ heartsuit♡ clubsuit♣ spadesuit♠ sharp♯ flat♭ natural♮ degree° copyright© checkmark✓ square□ Box□ blacksquare■
  ethð mho℧ complement∁ prime′ backprime‵ lozenge◊ bigstar★ pounds£ yen¥ S§ P¶`),
);

/** Operators and relations. */
export const OPERATORS = new Map(
  pairs(`
  times× div÷ cdot⋅ ast∗ star⋆ circ∘ bullet∙ pm± mp∓ cup∪ cap∩ uplus⊎ sqcup⊔ sqcap⊓ vee∨ lor∨ wedge∧ land∧ setminus∖ smallsetminus∖ wr≀ oplus⊕
  ominus⊖ otimes⊗ oslash⊘ odot⊙ amalg⨿ dagger† ddagger‡ leq≤ le≤ geq≥ ge≥ neq≠ ne≠ ll≪ gg≫ lll⋘ ggg⋙ equiv≡ sim∼ simeq≃ approx≈ cong≅ propto∝ doteq≐ asymp≍
  leqslant⩽ geqslant⩾ lesssim≲ gtrsim≳ prec≺ succ≻ preceq⪯ succeq⪰ subset⊂ supset⊃ subseteq⊆ supseteq⊇ subsetneq⊊ supsetneq⊋ nsubseteq⊈ sqsubseteq⊑ sqsupseteq⊒
  in∈ notin∉ ni∋ mid∣ nmid∤ parallel∥ nparallel∦ perp⊥ vdash⊢ dashv⊣ models⊨ vDash⊨ forall∀ exists∃ nexists∄ neg¬ lnot¬ therefore∴ because∵ colon:
  to→ rightarrow→ leftarrow← gets← uparrow↑ downarrow↓ updownarrow↕ leftrightarrow↔ Rightarrow⇒ Leftarrow⇐ Uparrow⇑ Downarrow⇓ Leftrightarrow⇔ implies⟹ impliedby⟸ iff⟺
  longrightarrow⟶ longleftarrow⟵ longleftrightarrow⟷ Longrightarrow⟹ Longleftarrow⟸ Longleftrightarrow⟺ mapsto↦ longmapsto⟼ hookrightarrow↪ hookleftarrow↩ nearrow↗ searrow↘ swarrow↙ nwarrow↖
  rightharpoonup⇀ rightharpoondown⇁ leftharpoonup↼ leftharpoondown↽ rightleftharpoons⇌ leadsto⇝ rightsquigarrow⇝ twoheadrightarrow↠ upharpoonright↾ restriction↾ nrightarrow↛
  ldots… dots… cdots⋯ vdots⋮ ddots⋱ dotsc… dotsb⋯ dotsm⋯ dotso… triangleq≜ coloneqq≔ eqqcolon≕ trianglelefteq⊴ triangleright▹ triangleleft◃ bowtie⋈ ltimes⋉ rtimes⋊ lhd⊲ rhd⊳ unlhd⊴
  surd√ multimap⊸ circledast⊛ boxplus⊞ boxtimes⊠ nequiv≢ napprox≉ approxeq≊ backsim∽ Vdash⊩ between≬ pitchfork⋔`),
);

/** Large operators: their limits stand above and below in a displayed formula, but for those of integrals. */
export const LARGE = new Map(
  pairs("sum∑ prod∏ coprod∐ bigcup⋃ bigcap⋂ bigvee⋁ bigwedge⋀ bigoplus⨁ bigotimes⨂ bigodot⨀ biguplus⨄ bigsqcup⨆"),
);
export const INTEGRALS = new Map(pairs("int∫ iint∬ iiint∭ oint∮ oiint∯"));

/** Delimiters after \left, \right and \big. */
export const DELIMITERS = new Map(
  pairs(
    "lbrace{ rbrace} langle⟨ rangle⟩ lvert| rvert| vert| lVert‖ rVert‖ Vert‖ lfloor⌊ rfloor⌋ lceil⌈ rceil⌉ lgroup⟮ rgroup⟯ lbrack[ rbrack] uparrow↑ downarrow↓ backslash\\ ulcorner⌜ urcorner⌝ llbracket⟦ rrbracket⟧",
  ),
);
DELIMITERS.set("{", "{").set("}", "}").set("|", "‖");

/** Functions, shown upright; the value says whether limits stand below. */
export const FUNCTIONS = new Map([
  ...[
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "coth",
    "exp",
    "log",
    "ln",
    "lg",
    "deg",
    "dim",
    "hom",
    "ker",
    "arg",
  ].map((name) => [name, false]),
  ...["lim", "max", "min", "sup", "inf", "det", "gcd", "Pr", "limsup", "liminf", "argmax", "argmin"].map((name) => [name, true]),
]);

/** Accents above, and lines and braces; `stretchy` ones cover the whole base. */
export const ACCENTS = new Map([
  ["hat", "^"],
  ["check", "ˇ"],
  ["tilde", "~"],
  ["bar", "¯"],
  ["vec", "→"],
  ["dot", "˙"],
  ["ddot", "¨"],
  ["dddot", "⃛"],
  ["acute", "´"],
  ["grave", "`"],
  ["breve", "˘"],
  ["mathring", "˚"],
  ["widehat", "^"],
  ["widetilde", "~"],
  ["overline", "‾"],
  ["overrightarrow", "→"],
  ["overleftarrow", "←"],
  ["overleftrightarrow", "↔"],
  ["overbrace", "⏞"],
  ["overbracket", "⎴"],
]);
export const UNDER = new Map([
  ["underline", "_"],
  ["underbrace", "⏟"],
  ["underrightarrow", "→"],
  ["underleftarrow", "←"],
  ["underbracket", "⎵"],
]);
export const STRETCHY = new Set([
  "widehat",
  "widetilde",
  "overline",
  "overrightarrow",
  "overleftarrow",
  "overleftrightarrow",
  "overbrace",
  "overbracket",
]);

/** Spaces in em. */
export const SPACES = new Map([
  [",", 0.167],
  [":", 0.222],
  [">", 0.222],
  [";", 0.278],
  ["!", -0.167],
  [" ", 0.25],
  ["~", 0.25],
  ["quad", 1],
  ["qquad", 2],
  ["enspace", 0.5],
  ["thinspace", 0.167],
  ["medspace", 0.222],
  ["thickspace", 0.278],
  ["negthinspace", -0.167],
  ["nobreakspace", 0.25],
  ["space", 0.25],
]);

/** Alphabets by the first code point of capital A, small a and digit 0; letters that Unicode had before have places of their own. */
export const ALPHABETS = new Map([
  ["mathbf", [0x1d400, 0x1d41a, 0x1d7ce]],
  ["boldsymbol", [0x1d468, 0x1d482, 0x1d7ce]],
  ["bm", [0x1d468, 0x1d482, 0x1d7ce]],
  ["mathbb", [0x1d538, 0x1d552, 0x1d7d8]],
  ["mathcal", [0x1d49c, 0x1d4b6, 0x30]],
  ["mathscr", [0x1d49c, 0x1d4b6, 0x30]],
  ["mathfrak", [0x1d504, 0x1d51e, 0x30]],
  ["mathsf", [0x1d5a0, 0x1d5ba, 0x1d7e2]],
  ["mathtt", [0x1d670, 0x1d68a, 0x1d7f6]],
]);
export const MOVED = new Map([
  ...Object.entries({ C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" }).map(([letter, sign]) => [`mathbb${letter}`, sign]),
  ...["mathcal", "mathscr"].flatMap((name) =>
    Object.entries({ B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" }).map(
      ([letter, sign]) => [`${name}${letter}`, sign],
    ),
  ),
  ...Object.entries({ C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" }).map(([letter, sign]) => [`mathfrak${letter}`, sign]),
]);

/** Environments: the delimiters around a table, and how its columns stand. */
export const ENVIRONMENTS = new Map([
  ["matrix", ["", "", "c"]],
  ["smallmatrix", ["", "", "c"]],
  ["pmatrix", ["(", ")", "c"]],
  ["bmatrix", ["[", "]", "c"]],
  ["Bmatrix", ["{", "}", "c"]],
  ["vmatrix", ["|", "|", "c"]],
  ["Vmatrix", ["‖", "‖", "c"]],
  ["cases", ["{", "", "l"]],
  ["dcases", ["{", "", "l"]],
  ["rcases", ["", "}", "l"]],
  ["array", ["", "", "c"]],
  ["aligned", ["", "", "rl"]],
  ["align", ["", "", "rl"]],
  ["alignat", ["", "", "rl"]],
  ["split", ["", "", "rl"]],
  ["eqnarray", ["", "", "rcl"]],
  ["gathered", ["", "", "c"]],
  ["gather", ["", "", "c"]],
  ["equation", ["", "", "c"]],
  ["multline", ["", "", "c"]],
  ["subarray", ["", "", "c"]],
]);
