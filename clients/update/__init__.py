"""Processing of a client's update before it is encoded: clipping, noise, and a check for finite values.

An update is the change of the shared weights in local training. The steps act on the updates of a whole
stack of clients at once, and give each client the same bits whatever the rest of the stack. A new step is a
class in its own file here, and a row in `tests/contract/test_update_steps.py`. The encoding of updates is in
`common/update/codecs.py`.
"""
