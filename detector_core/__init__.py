"""The detector without a cluster: plain PyTorch, pandas and images.

Each package builds on the ones above it::

    errors, labels, config
    storage      local folders and object stores
    images       bytes -> pixels -> the network's input
    networks     architectures, variants, initial weights; a model folder
    data         folders -> data set -> batches
    evaluation   model folder + data set -> scores, report
    training     specification + data set -> model folder
    registry     model folder -> live version -> predictions

This package never imports ray, fastapi, ``jobs`` or ``serve_app``, so it works in a notebook as it is.
"""
