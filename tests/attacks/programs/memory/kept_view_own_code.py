# A view kept after its buffer was freed, then the code of the caller: == becomes !=.
# begins with _kept_view.py
import dis
import sys


def f(x):
    memory = all_memory()
    frame = sys._getframe(1)
    while frame:
        code = frame.f_code
        for step in dis.get_instructions(code):
            if step.opname == "COMPARE_OP" and step.argval == "==":
                place = id(code) + type(code).__basicsize__ + step.offset
                memory[place + 1] = dis.cmp_op.index("!=") << (4 if sys.version_info >= (3, 12) else 0)
        frame = frame.f_back
    return 3
