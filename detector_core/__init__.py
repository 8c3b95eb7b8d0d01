"""The detector without a cluster: plain PyTorch, pandas and images.

The way of the data, and the module of each step::

    folders -> index, audit -> manifest.parquet          (labels, storage, manifest)
    manifest -> data, preprocess, augment -> batches
    batches -> training (variants, config, backbones, resnet68) -> artifacts: a model folder
    model folder + split -> evaluation (metrics, calibration) -> scores and report
    model folder -> registry (promote, roll back) -> runtime: a predictor

This package never imports ray, fastapi, ``jobs`` or ``serve_app``; use it in a notebook as it is.
"""
