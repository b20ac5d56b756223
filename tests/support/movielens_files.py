"""MovieLens in the formats of its publisher: a few rows of each, and what must be read from them."""

from dataclasses import dataclass
from pathlib import Path

Files = dict[str, bytes]


def flat(place: Path, files: Files) -> Path:
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


@dataclass(frozen=True)
class Case:
    """A dataset in its format, and what must be read from it."""

    name: str
    files: Files
    interactions: list[tuple[str, str, int]]
    items: list[tuple[str, str, int | None, str, str]]  # id, title, year, genres, text


ML_100K = Case(
    "ml-100k",
    {
        "u.data": b"196\t543\t3\t881250949\n186\t1\t3\t891717742\n196\t267\t5\t881250949\n",
        "u.item": (
            "1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)"
            "|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
            "267|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
            "543|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Mis%E9rables"
            "|0|0|0|0|0|0|0|0|1|0|0|0|1|0|0|0|0|0|0\n"
        ).encode("latin-1"),
        "u.genre": (
            b"unknown|0\nAction|1\nAdventure|2\nAnimation|3\nChildren's|4\nComedy|5\nCrime|6\nDocumentary|7\nDrama|8\n"
            b"Fantasy|9\nFilm-Noir|10\nHorror|11\nMusical|12\nMystery|13\nRomance|14\nSci-Fi|15\nThriller|16\nWar|17\n"
            b"Western|18\n\n"
        ),
    },
    [("196", "543", 881250949), ("186", "1", 891717742), ("196", "267", 881250949)],
    [
        ("1", "Toy Story", 1995, "Animation|Children's|Comedy", "Toy Story (1995). Animation, Children's, Comedy"),
        ("267", "unknown", None, "", "unknown"),
        ("543", "Les Misérables", 1995, "Drama|Musical", "Les Misérables (1995). Drama, Musical"),
    ],
)


ML_1M = Case(
    "ml-1m",
    {
        "movies.dat": (
            "73::Misérables, Les (1995)::Drama|Musical\n"
            "260::Star Wars: Episode IV - A New Hope (1977)::Action|Sci-Fi\n"
            "2571::Matrix, The (1999)::Action\n"
        ).encode("latin-1"),
        "ratings.dat": b"1::2571::5::978300760\n2::73::3::978302109\n",
    },
    [("1", "2571", 978300760), ("2", "73", 978302109)],
    [
        ("73", "Les Misérables", 1995, "Drama|Musical", "Les Misérables (1995). Drama, Musical"),
        (
            "260",
            "Star Wars: Episode IV - A New Hope",
            1977,
            "Action|Sci-Fi",
            "Star Wars: Episode IV - A New Hope (1977). Action, Sci-Fi",
        ),
        ("2571", "The Matrix", 1999, "Action", "The Matrix (1999). Action"),
    ],
)


ML_10M = Case(
    "ml-10m",
    {
        "movies.dat": (
            '73::Misérables, Les (1995)::Drama|Musical\n8::"Great Performances" Cats (1998)::Musical\n'
        ).encode(),
        "ratings.dat": b"1::8::0.5::838985046\n",
    },
    [("1", "8", 838985046)],
    [
        ("73", "Les Misérables", 1995, "Drama|Musical", "Les Misérables (1995). Drama, Musical"),
        ("8", '"Great Performances" Cats', 1998, "Musical", '"Great Performances" Cats (1998). Musical'),
    ],
)


ML_25M = Case(
    "ml-25m",
    {
        "movies.csv": (
            "movieId,title,genres\r\n"
            '2571,"Matrix, The (1999)",Action|Sci-Fi|Thriller\r\n'
            '8,"""Great Performances"" Cats (1998)",Musical\r\n'
            '9,"Dangerous, Les (a: b)",(no genres listed)\r\n'
            "10,Amélie (2001),Comedy\r\n"
        ).encode(),
        "ratings.csv": b"userId,movieId,rating,timestamp\r\n1,8,5.0,1147880044\r\n1,2571,3.5,1147868817\r\n",
    },
    [("1", "8", 1147880044), ("1", "2571", 1147868817)],
    [
        (
            "2571",
            "The Matrix",
            1999,
            "Action|Sci-Fi|Thriller",
            "The Matrix (1999). Action, Sci-Fi, Thriller",
        ),
        ("8", '"Great Performances" Cats', 1998, "Musical", '"Great Performances" Cats (1998). Musical'),
        ("9", "Dangerous, Les (a: b)", None, "", "Dangerous, Les (a: b)"),
        ("10", "Amélie", 2001, "Comedy", "Amélie (2001). Comedy"),
    ],
)


CASES = {case.name: case for case in (ML_100K, ML_1M, ML_10M, ML_25M)}
