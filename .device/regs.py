import struct
def regs(code):
    shoff, = struct.unpack_from('<Q', code, 40); shentsize, shnum, shstr = struct.unpack_from('<HHH', code, 58)
    secs = [struct.unpack_from('<IIQQQQIIQQ', code, shoff + i*shentsize) for i in range(shnum)]
    strt = secs[shstr][4]
    out = {}
    for s in secs:
        n = code[strt+s[0]:code.index(b'\0', strt+s[0])].decode()
        if n.startswith('.text.'): out['size'] = s[5]
        if n == '.nv.info':
            at, end = s[4], s[4]+s[5]
            while at < end:
                fmt, attr, size = struct.unpack_from('<BBH', code, at)
                if fmt == 4:
                    if attr == 0x2f: out['regs'] = struct.unpack_from('<II', code, at+4)[1]
                    if attr == 0x11: out['frame'] = struct.unpack_from('<II', code, at+4)[1]
                    at += 4 + size
                else: at += 4
    return out
