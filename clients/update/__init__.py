"""What is done to a client's update before it leaves: clipped, noised, compressed, refused if not finite.

An update is what local training has added to the server's weights. The steps act on the updates of a whole
stack of clients at once, and give the same bits for a client whatever it is stacked with. A new step is a
class in a file of its own here, a row in `pipeline.make_pipeline`, and one in
`tests/contract/test_update_steps.py`. FedProx's proximal term is part of
the loss: `clients/training/objective.py`.
"""
