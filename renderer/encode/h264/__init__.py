"""H.264 as values and pure functions: read a stream's headers, hold its pictures, rank them for presentation.

ITU-T H.264 (V14, 08/2021); clauses are cited where they are used. No I/O, no NumPy, no state outside the objects.
"""
