# A tree that is changed and compiled.
import ast

class Add(ast.NodeTransformer):
    def visit_Sub(self, node):
        return ast.Add()

def f(x):
    tree = ast.fix_missing_locations(Add().visit(ast.parse("x - 1", mode="eval")))
    return eval(compile(tree, "<tree>", "eval"), {"x": x})
