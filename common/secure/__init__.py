"""The parts of secure aggregation shared by server and clients: arithmetic, keys, masks, graph, encoding.

The protocol is that of Bonawitz et al.: Practical Secure Aggregation for Privacy-Preserving Machine Learning,
CCS 2017, over the sparse graph of Bell et al.: Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead, CCS 2020, against an honest but curious server. docs/secure-aggregation.md explains it in plain
words, with its limits.
"""
