"""Small synthetic scenes with exact labels for classification, detection, segmentation and pose.

Everything follows from one seed, image by image: image 7 is the same whether 10 or 1,000 are
made. Categories are those of ImageNet, COCO and ADE20K, of which a subset occurs.

    shapes.py       what is in them: objects and human figures as coloured polygons
    backgrounds.py  what they stand on: textured regions
    compose.py      a scene: background, objects that hide one another, labels
    layouts.py      files as ImageNet, COCO and ADE20K have them
"""

from .compose import Scene, Thing, make_object, make_scene
from .layouts import write_ade20k, write_coco, write_imagenet

__all__ = ['Scene', 'Thing', 'make_object', 'make_scene', 'write_ade20k', 'write_coco', 'write_imagenet']
