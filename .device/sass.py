import sys, re, collections, subprocess; sys.path.insert(0,'/work/dev')
from regs import regs
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.cuda.device import compiling as C
D="/tmp/tri/triton/backends/nvidia/bin/nvdisasm"
def code(name, m):
    k = kernel(name); return C.compiled(k.source(m), name + ".cu", (f"--gpu-architecture={k.target('90')}", "--std=c++17", *k.defines(m)))
def show(name, m, dump=None):
    c = code(name, m); open("/tmp/x.cubin","wb").write(c)
    out = subprocess.run([D,"-c","/tmp/x.cubin"],capture_output=True,text=True).stdout
    lines=out.splitlines(); labels={}; ins=[]
    for l in lines:
        if re.match(r'^\.L_x_\d+:',l): labels[l.strip()[:-1]]=len(ins); continue
        g=re.match(r'\s+/\*([0-9a-f]{4,})\*/\s+(.*?);',l)
        if g: ins.append(g.group(2))
    print(name, m, regs(c), len(ins))
    def op(t): return '.'.join(re.sub(r'^@!?U?P\d+ ','',t).split()[0].split('.')[:2])
    loops=[]
    for i,t in enumerate(ins):
        g=re.search(r'BRA.*?(L_x_\d+)',t)
        if g:
            d=labels.get('.'+g.group(1))
            if d is not None and d<i and i-d>40: loops.append((d,i))
    for d,i in loops: print("  loop",d,i,i-d, collections.Counter(op(t) for t in ins[d:i+1]).most_common(22))
    if dump: open(dump,"w").write("\n".join(f"{n} {t}" for n,t in enumerate(ins)))
R=lambda **k:{a:str(b) for a,b in k.items()}
if __name__=="__main__":
    show("gemv_gated",R(QUANT="Q4_K",FUNCTION="silu",WHOLE=1,BLOCKS=2),"/tmp/g.sass")
    show("gemv_whole",R(QUANT="Q4_K",UNROLL=4),"/tmp/b.sass")
