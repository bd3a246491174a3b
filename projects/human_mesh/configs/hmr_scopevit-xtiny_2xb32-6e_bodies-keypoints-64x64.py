# The same images with COCO's keypoints as their only labels, as photographs have them; scored on known bodies.
# Keypoints leave open what is in front and what behind, which the priors of pose and shape decide.
_base_ = './hmr_scopevit-xtiny_2xb32-6e_bodies-64x64.py'

model = dict(head=dict(losses=dict(_delete_=True, keypoints=5.0, pose_prior=2.0, shape_prior=0.05)))
train_dataloader = dict(dataset=dict(labels='keypoints'))
