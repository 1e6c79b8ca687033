"""The exercises and the quiz of each chapter: plain data, a file a chapter."""
