"""What the database does by itself when somebody deletes a study: our rows follow, or it refuses.

Optuna and its dashboard rename a study by copying its trials and deleting the original, and
delete one without knowing of our tables. A trained model is nowhere else, so

- rows of ours move to a copy of the study that has all of its trials, whoever made it;
- where there is no copy, the deletion is refused: ``aesearch delete`` takes our rows first.

SQLite uses ids again, and connections of others do not enforce foreign keys there: triggers also
delete what the cascade would.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from aesearch.studies.store import tables

IDENTITY = "aesearch:study"  # user attribute of an Optuna study: aesearch_study.identity
REFUSED = (
    "this study holds trained models that are nowhere else, and is deleted by "
    "aesearch delete STUDY only"
)
_PARENTS = (("trials", "trial_id"), ("studies", "study_id"))
_SLOTS = "(SELECT sum(size) FROM aesearch_lease WHERE study_id = OLD.study_id AND kind = 'search')"
# The last copy that nothing of ours hangs on and that has each trial in the same state.
_FIND_COPY = f"""
INSERT INTO aesearch_moved (old_trial_id, new_trial_id, new_study_id)
SELECT a.trial_id, b.trial_id, b.study_id FROM trials a JOIN trials b ON b.number = a.number
WHERE a.study_id = OLD.study_id AND a.number < {_SLOTS} AND b.study_id = (
  SELECT max(t.study_id) FROM study_user_attributes t
  JOIN aesearch_study s ON t.value_json = '"' || s.identity || '"'
  WHERE s.study_id = OLD.study_id AND t.key = '{IDENTITY}' AND t.study_id <> OLD.study_id
  AND NOT EXISTS (SELECT 1 FROM aesearch_study o WHERE o.study_id = t.study_id)
  AND {_SLOTS} = (
    SELECT count(*) FROM trials c JOIN trials d ON d.number = c.number AND d.state = c.state
    WHERE c.study_id = OLD.study_id AND d.study_id = t.study_id AND c.number < {_SLOTS}))
"""
_NO_COPY = "NOT EXISTS (SELECT 1 FROM aesearch_moved)"


def _children(key: str) -> list[str]:
    return [
        table.name
        for table in tables.OWN_TABLES
        if key in table.c and table.c[key].foreign_keys and table is not tables.study
    ]


def _follow_copy() -> list[str]:
    """Statements that move every row of ours; that of the study, which says whose it is, last."""
    # ruff: noqa: S608
    of_trial = [
        f"UPDATE {name} SET trial_id = (SELECT new_trial_id FROM aesearch_moved "
        f"WHERE old_trial_id = {name}.trial_id) "
        "WHERE trial_id IN (SELECT old_trial_id FROM aesearch_moved)"
        for name in _children("trial_id")
    ]
    chosen = (
        "UPDATE aesearch_study SET chosen_trial_id = (SELECT new_trial_id FROM aesearch_moved "
        "WHERE old_trial_id = aesearch_study.chosen_trial_id) WHERE study_id = OLD.study_id"
    )
    of_study = [
        f"UPDATE {name} SET study_id = (SELECT max(new_study_id) FROM aesearch_moved) "
        "WHERE study_id = OLD.study_id"
        for name in (*_children("study_id"), "aesearch_study")
    ]
    return [*of_trial, chosen, *of_study, "DELETE FROM aesearch_moved"]


def _ours(parent: str) -> str:
    """Whether the row that goes is one of a study of ours."""
    ours = "EXISTS (SELECT 1 FROM aesearch_study WHERE study_id = OLD.study_id)"
    return ours if parent == "studies" else f"{ours} AND OLD.number < {_SLOTS}"


def _sqlite_triggers() -> dict[str, str]:
    made = {}
    for parent, key in _PARENTS:
        children = [*_children(key), *(["aesearch_study"] if key == "study_id" else [])]
        deletes = " ".join(f"DELETE FROM {name} WHERE {key} = OLD.{key};" for name in children)
        made[f"aesearch_delete_{parent}"] = f"AFTER DELETE ON {parent} BEGIN {deletes} END"
        refuse = f"SELECT RAISE(ABORT, '{REFUSED}') WHERE {_NO_COPY}"
        body = "; ".join([_FIND_COPY, refuse, *_follow_copy()])
        made[f"aesearch_keep_{parent}"] = (
            f"BEFORE DELETE ON {parent} WHEN {_ours(parent)} BEGIN {body}; END"
        )
    return made


def _postgres_function(parent: str) -> str:
    refuse = f"IF {_NO_COPY} THEN RAISE EXCEPTION '{REFUSED}'; END IF"
    body = "; ".join([_FIND_COPY, refuse, *_follow_copy()])
    return (
        f"CREATE OR REPLACE FUNCTION aesearch_keep_{parent}() RETURNS trigger LANGUAGE plpgsql "
        f"AS $$ BEGIN IF {_ours(parent)} THEN {body}; END IF; RETURN OLD; END $$"
    )


def make_triggers(connection: Connection) -> None:
    """Make them, or make them again: a new table of ours must be in them."""
    run = connection.execution_options(no_parameters=True).exec_driver_sql
    if connection.dialect.name == "sqlite":
        for name, text in _sqlite_triggers().items():
            run(f"DROP TRIGGER IF EXISTS {name}")
            run(f"CREATE TRIGGER {name} {text}")
        return
    for parent, _ in _PARENTS:
        name = f"aesearch_keep_{parent}"
        run(_postgres_function(parent))
        there = connection.execute(
            sa.text(
                "SELECT 1 FROM pg_trigger WHERE tgname = :name AND tgrelid = to_regclass(:parent)"
            ),
            {"name": name, "parent": parent},
        ).first()
        if there is None:  # only its owner may drop one, whoever may make it
            run(
                f"CREATE TRIGGER {name} BEFORE DELETE ON {parent} "
                f"FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
