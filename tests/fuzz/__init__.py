"""Attacks on fsad-edge: seeded, bounded in CI, and run for longer with ``make fuzz``.

Each area is a module with a class ``Attack``: ``make`` draws the steps of a case from a seed, as
JSON, and ``run`` does them and says how that ended. The attacks know the product by its command
line, by HTTP and by its library alone.
"""
