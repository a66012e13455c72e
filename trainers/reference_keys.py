"""Keys of Nemesis' released code, so that the error for such a key names the key to use here.

The released code has all keys of a method in one group, such as TRAINER.CoOpNemesis; here a Nemesis
variant reads its method's group and TRAINER.NEMESIS.
"""

from dassl.config import declare_aliases

NEMESIS = {"A": "OMEGA", "NT": "NORM", "NP": "N", "CW": "TAU", "BETA": "BETA"}
SAME = ("OMEGA", "NORM", "TAU", "SCHEDULE", "SELECT")
PROMPT = ("N_CTX", "CTX_INIT", "PREC")
TEXT_PROMPT = (*PROMPT, "CSC", "CLASS_TOKEN_POSITION")
METHODS = {
    "COOP": TEXT_PROMPT,
    "COCOOP": PROMPT,
    "PLOT": (*TEXT_PROMPT, "N", "EPS", "MAX_ITER", "THRESH"),
}


def aliases() -> dict[str, str]:
    """Return the key to use here by the key of the released code."""
    groups = ["NEMESIS", *(f"{method}NEMESIS" for method in METHODS)]
    names = {**{name: name for name in SAME}, **NEMESIS}
    table = {
        f"TRAINER.{group}.{name}": f"TRAINER.NEMESIS.{new}"
        for group in groups
        for name, new in names.items()
    }
    for method, names_of_method in METHODS.items():
        for name in names_of_method:
            table[f"TRAINER.{method}NEMESIS.{name}"] = f"TRAINER.{method}.{name}"
        for name, new in NEMESIS.items():  # in the method's own group
            table[f"TRAINER.{method}.{name}"] = f"TRAINER.NEMESIS.{new}"
    return table


declare_aliases(aliases())
