"""The networks, their pretrained weights, and the model folder of a trained one."""
