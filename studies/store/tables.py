"""The tables that are ours, beside Optuna's in the same database; no queries here.

Every row hangs on an Optuna study or trial; what happens when Optuna deletes those is in
``triggers``.
Who adds a table or a nullable column raises ``SCHEMA_VERSION`` once per release: older
stores get it when they are opened (``migrations``).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION = 6

metadata = MetaData()

# Optuna owns these two; only the keys that ours refer to are named, and we never create them.
Table("studies", metadata, Column("study_id", Integer, primary_key=True), info={"optuna": True})
Table("trials", metadata, Column("trial_id", Integer, primary_key=True), info={"optuna": True})


def _study_key() -> Column[int]:
    return Column(
        "study_id",
        Integer,
        ForeignKey("studies.study_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


def _trial_key() -> Column[int]:
    return Column(
        "trial_id",
        Integer,
        ForeignKey("trials.trial_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


def _index(name: str) -> Column[int]:
    return Column(name, Integer, primary_key=True, autoincrement=False)


schema = Table("aesearch_schema", metadata, Column("version", Integer, primary_key=True))

study = Table(
    "aesearch_study",
    metadata,
    _study_key(),
    Column("spec", Text, nullable=False),  # JSON of the resolved StudySpec
    Column("facts", Text, nullable=False),  # JSON: data fingerprint, split hash, sizes, versions
    Column("created", Float, nullable=False),  # seconds since 1970, the database's clock
    Column("aesearch_version", String(64), nullable=False),
    Column("chosen_trial_id", Integer),  # no foreign key: it must not stop a trial's deletion
    Column("retrain_key", String(64)),  # sha256 of the chosen configuration and how it retrains
    Column("test_looks", Integer, nullable=False, default=0),
    Column("deadline", Float),  # database's clock: from then on no generation is begun
    # Optuna copies user attributes with a study: its copy is known by the one that says this.
    Column("identity", String(32)),
    Column("stopped", Text),  # why the search ended before all of its trials
)

lease = Table(
    "aesearch_lease",
    metadata,
    _study_key(),
    Column("kind", String(16), primary_key=True),  # search, retrain, evaluate
    _index("position"),  # generation or chunk, from 0
    Column("first", Integer, nullable=False),  # first trial number or first seed index
    Column("size", Integer, nullable=False),  # how many trials or seeds
    Column("suggested", Boolean, nullable=False, default=False),
    Column("done", Boolean, nullable=False, default=False),
    Column("attempt", Integer, nullable=False, default=0),  # claims since the last progress
    Column("owner", String(255)),
    Column("token", String(32)),
    Column("expires", Float),  # seconds since 1970, the database's clock
    Column("progress", Text),  # JSON, for people who watch
    Column("claimed", Float),  # database's clock, of the last claim
    Column("finished", Float),  # database's clock
    # Attempts since the last progress that wrote a rung again and none that was new, or NULL.
    Column("repeated", Integer),
)

# One row for each trial that the ledger gave its parameters; whatever others write into Optuna's
# rows of it is set right when it is finished here.
trial = Table(
    "aesearch_trial",
    metadata,
    _trial_key(),
    Column("params", Text, nullable=False),  # JSON: {name: [value, distribution]}
    Column("finished", Boolean, nullable=False, default=False),
    Column("reported", Integer, nullable=False, default=0),  # last epoch whose loss was reported
    Column("excluded", Text),  # why a person took it out of the choice
)

# From old ids to new while Optuna's copy of a study takes the place of the original, else empty.
moved = Table(
    "aesearch_moved",
    metadata,
    Column("old_trial_id", Integer, primary_key=True, autoincrement=False),
    Column("new_trial_id", Integer, nullable=False),
    Column("new_study_id", Integer, nullable=False),
)

curve = Table(
    "aesearch_curve",
    metadata,
    _trial_key(),
    _index("fold"),
    _index("epoch"),  # from 1
    Column("train_loss", Float),  # NULL stands for NaN: SQLite has none
    Column("validation_loss", Float),
)

trial_picture = Table(
    "aesearch_trial_picture",
    metadata,
    _trial_key(),
    Column("name", String(64), primary_key=True),  # the file's, as an artifact
    Column("alt", Text, nullable=False),  # what is to be seen, for those who cannot see it
    Column("png", LargeBinary, nullable=False),
)

retrain = Table(
    "aesearch_retrain",
    metadata,
    _study_key(),
    Column("retrain_key", String(64), primary_key=True),
    _index("seed_index"),
    Column("seed", BigInteger, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("best_epoch", Integer, nullable=False),
    Column("validation_loss", Float),
    Column("weights_sha256", String(64), nullable=False),
    Column("weights", LargeBinary, nullable=False),  # safetensors
    Column("test_mse", Float),
)

retrain_curve = Table(
    "aesearch_retrain_curve",
    metadata,
    _study_key(),
    Column("retrain_key", String(64), primary_key=True),
    _index("seed_index"),
    _index("epoch"),
    Column("train_loss", Float),
    Column("validation_loss", Float),
    Column("validation_accuracy", Float),  # share of pixels on the right side of 0.5
)

evaluation = Table(
    "aesearch_evaluation",
    metadata,
    _study_key(),
    Column("retrain_key", String(64), primary_key=True),
    Column("document", Text, nullable=False),  # JSON: what the exported seed reached on the test
)

picture = Table(
    "aesearch_picture",
    metadata,
    _study_key(),
    Column("retrain_key", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("alt", Text, nullable=False),  # what is to be seen, for those who cannot see it
    Column("png", LargeBinary, nullable=False),
)

checkpoint = Table(
    "aesearch_checkpoint",
    metadata,
    _study_key(),
    Column("kind", String(16), primary_key=True),
    _index("position"),
    Column("key", String(64), nullable=False),  # what was being trained; another key is ignored
    Column("payload", LargeBinary, nullable=False),  # safetensors
)

OWN_TABLES = [table for table in metadata.sorted_tables if not table.info.get("optuna")]
