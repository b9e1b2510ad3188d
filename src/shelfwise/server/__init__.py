"""The HTTP service: an API for machines, pages for people, metrics for whoever runs it. FastAPI stops in this folder.

How its parts meet stands in `contract`.
"""
