"""The packages that ScopeViT runs on: made to fit where they do not, installed, examined."""
