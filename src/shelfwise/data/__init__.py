"""Catalogues: reading files of products, checking them, cutting them into parts, and writing rows back."""
