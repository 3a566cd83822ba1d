"""How good a trained run is."""
