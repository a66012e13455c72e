"""The keys of Nemesis' released code, for the hint that an unknown key gets.

There each method has all its keys in one group, such as TRAINER.CoOpNemesis; here a Nemesis variant
reads its method's group and TRAINER.NEMESIS.
"""

from dassl.config import declare_aliases

NEMESIS = {"A": "OMEGA", "NT": "NORM", "NP": "N", "CW": "TAU", "BETA": "BETA"}
OURS = ("OMEGA", "NORM", "TAU", "SCHEDULE", "SELECT")
PROMPT = ("N_CTX", "CTX_INIT", "PREC")
PLACED = (*PROMPT, "CSC", "CLASS_TOKEN_POSITION")
METHODS = {
    "COOP": PLACED,
    "COCOOP": PROMPT,
    "PLOT": (*PLACED, "N", "EPS", "MAX_ITER", "THRESH"),
}


def aliases() -> dict[str, str]:
    """Key of the released code -> key here."""
    groups = ["NEMESIS", *(f"{method}NEMESIS" for method in METHODS)]
    names = {**{name: name for name in OURS}, **NEMESIS}
    table = {
        f"TRAINER.{group}.{name}": f"TRAINER.NEMESIS.{ours}"
        for group in groups
        for name, ours in names.items()
    }
    for method, names_of_method in METHODS.items():
        for name in names_of_method:
            table[f"TRAINER.{method}NEMESIS.{name}"] = f"TRAINER.{method}.{name}"
        for name, ours in NEMESIS.items():  # in the group of the method itself
            table[f"TRAINER.{method}.{name}"] = f"TRAINER.NEMESIS.{ours}"
    return table


declare_aliases(aliases())
