// What a person has chosen for this browser, beside the conversations: small things in localStorage, and the API key.

const PREFIX = "lacewing.";

/** A value, or `otherwise` where none was kept or storage is not allowed. */
export function preference(name, otherwise = null) {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function setPreference(name, value) {
  try {
    if (value === null) localStorage.removeItem(PREFIX + name);
    else localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // storage is off or full: the choice lasts as long as this window
  }
}

/** The API key: of this browser if a person said so, else of this window. */
export function apiKey() {
  try {
    return sessionStorage.getItem(`${PREFIX}key`) ?? localStorage.getItem(`${PREFIX}key`);
  } catch {
    return heldKey;
  }
}

let heldKey = null;

/** Keeps the key: `stay` for later visits as well. null forgets it. */
export function setApiKey(key, stay = false) {
  heldKey = key;
  try {
    sessionStorage.removeItem(`${PREFIX}key`);
    localStorage.removeItem(`${PREFIX}key`);
    if (key !== null) (stay ? localStorage : sessionStorage).setItem(`${PREFIX}key`, key);
  } catch {
    // storage is off: held in memory alone
  }
}

const THEMES = ["system", "light", "dark"];

export function theme() {
  const found = preference("theme", "system");
  return THEMES.includes(found) ? found : "system";
}

/** Shows the page light, dark, or as the system is. */
export function applyTheme(name) {
  setPreference("theme", name);
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

export function nextTheme() {
  return THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
}
