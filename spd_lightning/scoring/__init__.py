"""What a completion is worth: the answer in it, the verdict on it, and programs run apart from their tests."""
