"""The lab: data sets, engine, results, report and the command line of the simulator."""

if __name__ != "shoal.simulations":  # under a second name all of it would load twice
    raise ImportError("the package is shoal.simulations")
