"""A federation of hospitals with a data frame and a Keras model of your own.

Run it as it is: python examples/own_model.py. Model and data are defined in this file, and need no
`if __name__ == "__main__"` around the run: worker processes get them from here.
"""

import keras
import numpy as np
import pandas as pd

import shoal

# 1. Data: one row a patient, with the hospital it belongs to. Each hospital sees another age group, so
#    that one alone learns less than all together.
rng = np.random.default_rng(0)
hospital = rng.choice(["north", "south", "east"], 900, p=[0.5, 0.3, 0.2])
age = rng.normal(55, 12, 900) + 8 * (hospital == "east")
pressure = rng.normal(130, 15, 900)
pressure[rng.random(900) < 0.05] = np.nan  # a few were not measured
smoker = rng.choice(["yes", "no"], 900)
risk = 0.15 * (age - 55) + 0.08 * (np.nan_to_num(pressure, nan=130) - 130) + 2.5 * (smoker == "yes") - 1.2
outcome = np.where(rng.random(900) < 1 / (1 + np.exp(-risk)), "sick", "healthy")
patients = pd.DataFrame(
    {"hospital": hospital, "age": age, "pressure": pressure, "smoker": smoker, "outcome": outcome}
)


# 2. A model: shoal encodes the columns (missing values filled, numbers scaled, texts one-hot) from sums
#    that leave the hospitals, and says here what shape that gives.
class Gate(keras.layers.Layer):
    """Weighs each input by a factor in (0, 1) that it learns."""

    def build(self, input_shape):
        """Make the factors."""
        self.gate = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="gate")

    def call(self, inputs):
        """Weigh the inputs."""
        return inputs * keras.ops.sigmoid(self.gate)


def build(input_spec, num_classes):
    """Return an uncompiled model: optimizer, loss and rounds are set below."""
    return keras.Sequential(
        [
            keras.Input(input_spec.shape),
            Gate(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


# 3. The run: the same folder, report and models as `shoal run` leaves.
run = shoal.simulate(
    model=build,
    data=patients,
    client="hospital",
    label="outcome",
    rounds=6,
    training={"optimizer": "adam", "learning_rate": 0.02},
    compare=True,
    workers=2,
)

print(run)
print(run.rounds[["round", "train_loss", "metric_auc"]])
print(run.sites.query("metric == 'auc'").pivot(index="name", columns="model", values="value").round(3))
print(run.predict(patients.head(3)))
print("Report:", run.report())
