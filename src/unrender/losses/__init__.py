"""How far things are from what they should be, differentiable."""
