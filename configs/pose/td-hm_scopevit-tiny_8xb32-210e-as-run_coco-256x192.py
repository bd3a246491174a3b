# The release writes SyncBN, which its backbone and its head pass over: no batch norm is synchronised.
_base_ = './td-hm_scopevit-tiny_8xb32-210e_coco-256x192.py'

sync_bn = None
