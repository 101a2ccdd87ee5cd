"""Training data: lists of pictures and boxes, checked before the run; batches of them, drawn and augmented by seed.

What a run reads comes in three steps. `lists` and `coco` read files into `Pictures` and `Scenes`; `samplers` say which
of them a batch holds; `datasets` decode, augment and stack. `prepare` turns published sets into files of that form,
and `generated` needs no files at all.
"""
