"""Parametric bodies: what they are, how they stand and how they are drawn.

skeleton.py   joints by name, order and parent
rotations.py  rotations in six numbers and in three
body.py       tables of a body, linear blend skinning, the camera
capsules.py   the tables of our own body
anny.py       the tables of the Anny body, where it is installed
poses.py      poses and shapes at random
drawing.py    shaded triangles
"""

from .anny import AnnyBody
from .body import Body, Tables, project
from .capsules import CapsuleBody

__all__ = ['AnnyBody', 'Body', 'CapsuleBody', 'Tables', 'project']
