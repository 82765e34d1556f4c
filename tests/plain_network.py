"""Networks and training of version 0.1.0, as in many published studies."""

PLAIN = (
    "model.activation=relu",
    "model.shortcut=none",
    "model.output=sigmoid",
    "model.initialization=torch",
    "training.averaging=none",
    "training.optimizer=adam",
)
