"""The paper's tables and figures, each a function that returns a recipe."""
