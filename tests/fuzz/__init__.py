"""Thousands of inputs, right, wrong and hostile: a `UserError` or a right result, never another exception or a hang."""
