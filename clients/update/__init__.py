"""What is done to a client's update before it is encoded: clipped, noised, refused if not finite.

An update is what local training has added to the shared weights. The steps act on the updates of a whole
stack of clients at once, and give the same bits for a client whatever it is stacked with. A new step is a
class in a file of its own here, and one in `tests/contract/test_update_steps.py`. How an update is encoded:
`common/update/codecs.py`.
"""
