# The quick start with AutoMix, whose masks are made of the first stage's 8 x 8 cells.
_base_ = '../../../configs/classification/scopevit-xtiny_2xb64-9e_fashion-mnist-32px.py'
custom_imports = dict(imports=['projects.mixing.methods'], allow_failed_imports=False)
# Of 423 iterations; with the paper's 0.999 the teacher would still be four fifths of its random beginning.
model = dict(type='AutoMixClassifier', mix_stage=0, momentum=0.99)
