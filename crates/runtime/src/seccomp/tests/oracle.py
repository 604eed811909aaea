"""Compiles rules with libseccomp: JSON on standard input, the program in hexadecimal on standard output."""
import ctypes, json, os, sys, tempfile

lib = ctypes.CDLL("libseccomp.so.2")
lib.seccomp_init.restype = ctypes.c_void_p


class Arg(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


OPS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
BAD_ARCH = 2
X86, X32 = 0x40000003, 0x4000003E

given = json.load(sys.stdin)
filter = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(given["default"])))
assert lib.seccomp_attr_set(filter, BAD_ARCH, ctypes.c_uint32(0x80000000)) == 0
assert lib.seccomp_arch_add(filter, X86) == 0 and lib.seccomp_arch_add(filter, X32) == 0
for rule in given["rules"]:
    args = [Arg(a["index"], OPS[a["op"][len("SCMP_CMP_"):]], a["value"], a["valueTwo"]) for a in rule["args"]]
    array = (Arg * max(1, len(args)))(*args)
    for name in rule["names"]:
        number = lib.seccomp_syscall_resolve_name(name.encode())
        if number != -1:
            # A rule that another one holds already is refused as existing; that changes nothing.
            lib.seccomp_rule_add_array(filter, ctypes.c_uint32(rule["action"]), number, len(args), array)
with tempfile.TemporaryFile() as file:
    assert lib.seccomp_export_bpf(filter, file.fileno()) == 0
    file.seek(0)
    print(file.read().hex())
