"""The parts of secure aggregation that server and clients share: arithmetic, keys, masks, graph, numbers.

The protocol is that of Bonawitz et al.: Practical Secure Aggregation for Privacy-Preserving Machine Learning,
CCS 2017, over the sparse graph of Bell et al.: Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead, CCS 2020, against a server that keeps to the protocol and is curious. docs/secure-aggregation.md
tells it in plain words, with what it does not protect against.
"""
