# A script with its own unit tests, whose unittest.main() exits.
import unittest

def f(x):
    return x + 1

class TestF(unittest.TestCase):
    def test_one(self):
        self.assertEqual(f(1), 2)

if __name__ == "__main__":
    unittest.main()
