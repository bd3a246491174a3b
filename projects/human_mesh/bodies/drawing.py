"""Bodies as images: shaded triangles from back to front."""

from collections.abc import Sequence

import cv2
import numpy as np

SUBPIXEL = 4  # OpenCV's polygons have corners at 1/16 pixel
MESH = (225, 180, 120)
"""Colour of a mesh that has none of its own: blue, green, red."""
LIGHT = (-0.3, -0.55, -0.78)
"""Where light comes from unless asked otherwise: from above, from the left and from the camera."""


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit vectors (F, 3) that point outward."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def paint_mesh(
    image: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    pixels: np.ndarray,
    colors: np.ndarray,
    light: Sequence[float] = LIGHT,
) -> None:
    """Paint a mesh over an image, in place.

    Args:
        image: (H, W, 3), of 8 bits.
        vertices: (V, 3) in camera coordinates: x to the right, y down, z away.
        faces: (F, 3), counterclockwise seen from outside in coordinates in which y is up and z towards the camera.
        pixels: (V, 2), where the vertices are in the image, x and y; the middle of the first pixel is (0, 0).
        colors: (F, 3) of the faces, from 0 to 255, as they are where light falls straight on.
        light: Direction to the light.
    """
    normals = face_normals(vertices, faces)
    towards = np.flatnonzero(normals[:, 2] < 0)  # the others face away from the camera
    order = towards[np.argsort(-vertices[faces[towards], 2].mean(axis=1), kind='stable')]
    direction = np.array(light) / np.linalg.norm(light)
    brightness = 0.45 + 0.55 * np.clip(normals[order] @ direction, 0, 1)
    shades = (colors[order] * brightness[:, None]).clip(1, 255).astype(int).tolist()  # never quite black
    corners = np.round(pixels[faces[order]] * 2**SUBPIXEL).astype(np.int32)
    for triangle, shade in zip(corners, shades):
        cv2.fillConvexPoly(image, triangle, shade, cv2.LINE_8, SUBPIXEL)


def over_image(
    image: np.ndarray, vertices: np.ndarray, faces: np.ndarray, pixels: np.ndarray, enlarge: int = 1
) -> np.ndarray:
    """A copy of an image (H, W, 3), BGR, enlarged, with a mesh over it; arguments are those of :func:`paint_mesh`."""
    height, width = image.shape[:2]
    figure = cv2.resize(image, (width * enlarge, height * enlarge), interpolation=cv2.INTER_CUBIC)
    painted = figure.copy()
    paint_mesh(painted, vertices, faces, (pixels + 0.5) * enlarge - 0.5, np.full((len(faces), 3), MESH, float))
    return cv2.addWeighted(painted, 0.9, figure, 0.1, 0)


def from_the_side(vertices: np.ndarray) -> np.ndarray:
    """Vertices (V, 3) as seen from a body's left or right: turned about the upright axis by 90 degrees."""
    x, y, z = vertices.T
    return np.stack([-z, y, x], axis=1)
