"""The networks, their first weights, and the folder a trained one is kept in."""
