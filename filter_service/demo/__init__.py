"""The pictogram world: scenes that are known pixel by pixel, and a small model that knows them."""
