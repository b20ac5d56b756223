"""Published datasets in the formats of their publishers: a few rows of each with its quirks, and what must be read."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedrec.data.readers.sources import FAMILIES, SOURCES
from tests.support.movielens_files import ML_1M, ML_10M, ML_25M, ML_100K
from tests.support.recbole_files import GOODS

Files = Mapping[str, bytes]
Event = tuple[str, str, float]
Item = tuple[str, str, str]


@dataclass(frozen=True)
class Published:
    """The files of a dataset, its events (user, item, time), and its items (id, title, text) that occur."""

    files: Files
    events: Sequence[Event]
    items: Sequence[Item]


def write(folder: Path, files: Files) -> Path:
    """Write files into a folder; names may have folders, and those that end in .gz are compressed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def json_lines(*records: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def literals(*records: Mapping[str, Any]) -> bytes:
    """Lines as Python's `repr` writes them: no JSON."""
    return "".join(f"{record}\n" for record in records).encode()


# ---- Amazon

OLD_EVENTS: list[Event] = [
    ("A1ANN0000000", "B000000001", 1_400_000_000),
    ("A1ANN0000000", "0000013714", 1_400_000_000),  # equal times, ties in file order
    ("A1ANN0000000", "B000000003", 1_300_000_000),
    ("A2BEN0000000", "B000000001", 1_300_000_001),
    ("A2BEN0000000", "B000000001", 1_300_000_001),  # the same review again
    ("A2BEN0000000", "B000000004", 1_300_000_002),  # a product without metadata
]


def old_reviews() -> bytes:
    text = {"reviewText": 'a "quoted", text\nwith asin: B000000009', "summary": "é"}
    return json_lines(
        *(
            {"reviewerID": user, "asin": asin, "overall": 5.0, "unixReviewTime": time, "vote": "1,024"} | text
            for user, asin, time in OLD_EVENTS
        )
    )


def old_ratings(asin_first: bool) -> bytes:
    """Ratings without a header, in the order of columns of 2018 or of 2014."""
    rows = ((asin, user, time) if asin_first else (user, asin, time) for user, asin, time in OLD_EVENTS)
    return "".join(f"{one},{other},5.0,{time}\n" for one, other, time in rows).encode()


def amazon_2014(category: str) -> Published:
    meta = literals(
        {"asin": "B000000009", "title": "Not reviewed", "categories": [["Beauty"]]},
        {
            "asin": "B000000001",
            "description": "It's <b>soft</b>.\n",
            "title": "Ann's &quot;Soap&quot;",
            "price": 5.99,
            "related": {"also_bought": ["B000000003"]},
            "categories": [["Beauty", "Bath"], ["Gifts"]],
        },
        {"asin": "0000013714", "title": "Hymns", "brand": "", "categories": [["Beauty"]]},
        {"asin": "B000000003", "categories": [["Beauty"]]},
    )
    return Published(
        {f"reviews_{category}_5.json.gz": old_reviews(), f"meta_{category}.json.gz": meta},
        list(OLD_EVENTS),
        [
            ("B000000001", 'Ann\'s "Soap"', "Ann's \"Soap\". Beauty, Bath, Gifts. It's soft ."),
            ("0000013714", "Hymns", "Hymns. Beauty"),
            ("B000000003", "B000000003", "Beauty"),
        ],
    )


PAGE_CODE = "var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();"


def amazon_2018(category: str) -> Published:
    blank = {"tech1": "", "fit": "", "rank": [], "also_buy": []}
    meta = json_lines(
        {"asin": "B000000001", "title": "Soap &amp; Brush", "category": ["Beauty", "Bath</span>"], "brand": "Ann"}
        | blank,
        {"asin": "B000000001", "title": "Soap again", "category": []} | blank,
        {"asin": "0000013714", "title": PAGE_CODE, "category": [], "brand": "Hymnal", "description": ["Old", "songs"]},
        {"asin": "B000000003", "title": "", "category": [], "brand": "", "description": []} | blank,
        {"asin": "B000000009", "title": "Not reviewed", "category": []} | blank,
    )
    return Published(
        {f"{category}_5.json.gz": old_reviews(), f"meta_{category}.json.gz": meta},
        list(OLD_EVENTS),
        [
            ("B000000001", "Soap & Brush", "Soap & Brush. Beauty, Bath. Ann"),
            ("B000000001", "Soap again", "Soap again"),
            ("0000013714", "0000013714", "Hymnal. Old, songs"),
        ],
    )


NEW_EVENTS: list[Event] = [
    ("AEANN", "B0A", 1_600_000_000_000),
    ("AEANN", "B0B", 1_630_000_000_123),
    ("AEANN", "B0C", 1_660_000_000_000),
    ("AEBEN", "B0A", 1_600_000_000_000),
    ("AEBEN", "B0C", 1_600_000_000_000),
    ("AEBEN", "B0D", 1_670_000_000_000),  # without metadata
]
NEW_HEADER = b"user_id,parent_asin,rating,timestamp\n"


def new_ratings(events: Sequence[Event], header: bytes = NEW_HEADER) -> bytes:
    return header + "".join(f"{user},{asin},4.0,{time}\n" for user, asin, time in events).encode()


def new_meta() -> bytes:
    blank = {"images": [], "videos": [], "details": {"Brand": "x"}, "bought_together": None}
    return json_lines(
        {
            "main_category": "All Beauty",
            "title": "Serum <i>No.&nbsp;5</i>",
            "features": ["Light", "&lt;b&gt;Fast&lt;/b&gt;"],
            "description": ["One.", "<script>track()</script>Two."],
            "price": 12.5,
            "store": "Ann & Co",
            "categories": ["Beauty", "Face"],
            "parent_asin": "B0A",
        }
        | blank,
        {"title": "", "features": [], "description": [], "price": None, "categories": [], "parent_asin": "B0B"} | blank,
        {"title": "Comb", "features": [], "description": [], "price": "from 3.99", "store": None, "parent_asin": "B0C"},
        {"title": "Not rated", "parent_asin": "B0Z"} | blank,
    )


def amazon_2023(category: str) -> Published:
    return Published(
        {f"{category}.csv": new_ratings(NEW_EVENTS), f"meta_{category}.jsonl": new_meta()},
        list(NEW_EVENTS),
        [
            ("B0A", "Serum No. 5", "Serum No. 5. Light, Fast. Beauty, Face. One., Two."),
            ("B0C", "Comb", "Comb"),
        ],
    )


def unisrec(folder: str, department: str) -> Published:
    files = {
        name.replace("Scientific", folder): content.replace("Industrial & Scientific", department)
        .replace("Industrial &amp; Scientific", department)
        .encode()
        for name, content in GOODS.items()
    }
    ann, bob = ["B0", "B1", "B2", "B3", "B4"], ["B3", "B1", "B3", "B0", "B0"]
    events = [(user, item, place) for user, items in (("ANN", ann), ("BOB", bob)) for place, item in enumerate(items)]
    return Published(files, events, [("B4", "Glue", "Glue")])


# ---- others


def yelp() -> Published:
    reviews = json_lines(
        {"review_id": "r1", "user_id": "u1", "business_id": "b1", "stars": 4.0, "date": "2018-07-07 22:09:11"},
        {"review_id": "r2", "user_id": "u1", "business_id": "b2", "stars": 1.0, "date": "2018-07-07 22:09:12"},
    )
    businesses = json_lines(
        {"business_id": "b1", "name": "Garaje", "city": "Tucson", "state": "AZ", "categories": "Mexican, Burgers"},
        {"business_id": "b2", "name": "Döner", "city": "Reno", "state": "NV", "categories": None},
        {"business_id": "b3", "name": "Nobody's", "city": "Reno", "state": "NV", "categories": ["Bars"]},
    )
    return Published(
        {"yelp_academic_dataset_review.json": reviews, "yelp_academic_dataset_business.json": businesses},
        [("u1", "b1", 1_531_001_351), ("u1", "b2", 1_531_001_352)],
        [("b1", "Garaje", "Garaje. Mexican, Burgers. Tucson. AZ"), ("b2", "Döner", "Döner. Reno. NV")],
    )


def steam() -> Published:
    reviews = (
        b"{u'username': u'Chaos Syren', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', u'text': "
        b"u\"It's u'product_id': u'1'\", u'early_access': False}\n"
        b"{u'username': u'\\u2665', u'product_id': u'70', u'date': u'2017-12-18', u'text': u'', u'user_id': u'7656'}\n"
    )
    games = (
        b"{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Indie'], u'app_name': u'Lost Kitty', u'title': u'Lost "
        b"Summoner Kitty', u'tags': [u'Casual'], u'price': 4.99, u'early_access': False, u'id': u'725280', "
        b"u'developer': u'Kotoshiro'}\n"
        b"{u'app_name': u'Half-Life', u'id': u'70', u'price': u'Free'}\n"
        b"{u'app_name': u'No id'}\n"
    )
    return Published(
        {"steam_reviews.json.gz": reviews, "steam_games.json.gz": games},
        [("Chaos Syren", "725280", 1_513_468_800), ("♥", "70", 1_513_555_200)],
        [
            ("725280", "Lost Summoner Kitty", "Lost Summoner Kitty. Action, Indie. Casual. Kotoshiro"),
            ("70", "Half-Life", "Half-Life"),
        ],
    )


def goodreads(genre: str) -> Published:
    shelf = {"review_text_incomplete": "", "read_at": "", "started_at": ""}
    events = json_lines(
        {
            "user_id": "8842",
            "book_id": "402128",
            "is_read": True,
            "rating": 4,
            "date_added": "Fri Apr 19 08:15:15 -0700 2013",
        }
        | shelf,
        {
            "user_id": "8842",
            "book_id": "9",
            "is_read": False,
            "rating": 0,
            "date_added": "Fri Apr 19 15:15:16 +0000 2013",
        }
        | shelf,
    )
    books = json_lines(
        {
            "book_id": "402128",
            "title": "Old Possum's",
            "description": "Cats.\r\nMore cats.",
            "publication_year": "1982",
        },
        {"book_id": "9", "title": "", "title_without_series": "Nine", "description": "", "publication_year": ""},
    )
    return Published(
        {f"goodreads_interactions_{genre}.json.gz": events, f"goodreads_books_{genre}.json.gz": books},
        [("8842", "402128", 1_366_384_515), ("8842", "9", 1_366_384_516)],
        [("402128", "Old Possum's", "Old Possum's. Cats. More cats."), ("9", "Nine", "Nine")],
    )


def lastfm() -> Published:
    tags = (
        b"userID\tartistID\ttagID\ttimestamp\n2\t52\t13\t1238536800000\n2\t52\t15\t1238536800000\n"
        b"3\t707\t1\t-428720400000\n"
    )
    artists = (
        "id\tname\turl\tpictureURL\n52\tMorcheeba\thttp://www.last.fm/music/Morcheeba\t\n"
        '707\t"Sigur Rós\thttp://www.last.fm/music/x\thttp://x/1.jpg\n1\tMALICE MIZER\thttp://x\n'
    ).encode()
    folder = "hetrec2011-lastfm-2k"
    return Published(
        {f"{folder}/user_taggedartists-timestamps.dat": tags, f"{folder}/artists.dat": artists},
        [("2", "52", 1_238_536_800_000), ("2", "52", 1_238_536_800_000), ("3", "707", -428_720_400_000)],
        [("52", "Morcheeba", "Morcheeba"), ("707", '"Sigur Rós', '"Sigur Rós')],
    )


def book_crossing() -> Published:
    ratings = '"User-ID";"ISBN";"Book-Rating"\r\n"276725";"034545104X";"0"\r\n"276726";"0155061224";"5"\r\n'
    books = (
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S"\r\n'
        '"034545104X";"Flesh; Tones &amp; \\"Bones\\"";"M. J. Rose";"2002";"Ballantine Books";"http://x/1.jpg"\r\n'
        '"0155061224";"Les Misérables";"Hugo";"0";"Heinle";"http://x/2.jpg"\r\n'
        '"0000000000";"Not rated";"Nobody";"1999";"None";"http://x/3.jpg"\r\n'
    )
    return Published(
        {"BX-Book-Ratings.csv": ratings.encode("latin-1"), "BX-Books.csv": books.encode("latin-1")},
        [("276725", "034545104X", 0), ("276726", "0155061224", 0)],
        [
            (
                "034545104X",
                'Flesh; Tones & "Bones"',
                'Flesh; Tones & "Bones". M. J. Rose. 2002. Ballantine Books',
            ),
            ("0155061224", "Les Misérables", "Les Misérables. Hugo. 0. Heinle"),
        ],
    )


def kuairec() -> Published:
    matrix = (
        b"user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        b"0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273397\n"
        b"0,9598,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,1.244082\n"
    )
    captions = (
        "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
        "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n"
        '3649,UNKNOWN,"搞笑 #快手, 谢谢\n第二行",[搞笑],8,颜值,673,颜值随拍,-124,UNKNOWN\n'
        "9598,五爱街,,[],27,时尚,-124,UNKNOWN,-124,UNKNOWN\n"
    ).encode()
    folder = "KuaiRec 2.0/data"
    return Published(
        {f"{folder}/big_matrix.csv": matrix, f"{folder}/kuairec_caption_category.csv": captions},
        [("0", "3649", 1593878903.438), ("0", "9598", 1593879221.297)],
        [
            ("3649", "搞笑 #快手, 谢谢 第二行", "搞笑 #快手, 谢谢 第二行. [搞笑]. 颜值. 颜值随拍"),
            ("9598", "五爱街", "五爱街. 时尚"),
        ],
    )


def mind() -> Published:
    news = (
        b'N55528\tlifestyle\troyals\tThe "Brands" Queen Elizabeth\tShop the notebooks.\thttps://x\t'
        b'[{"Label": "P\\"Q"}]\t[]\n'
        b"N19639\thealth\tweightloss\t50 Worst Habits\t\thttps://y\t[]\t[]\n"
        b"N1\tnews\tworld\tNever clicked\t\thttps://z\t[]\t[]\n"
    )
    train = (
        b"1\tU13740\t11/11/2019 9:05:58 AM\tN19639 N3\tN55528-1 N35729-0\n"
        b"2\tU13740\t11/10/2019 12:28:23 PM\tN19639 N3\tN20678-0 N35729-1\n"
        b"3\tU1\t11/11/2019 9:05:58 PM\t\tN1-0 N55528-1\n"
    )
    dev = b"1\tU1\t11/15/2019 8:55:22 AM\t\tN19639-1\n"
    first = 1_573_388_903
    return Published(
        {
            "MINDsmall_train/behaviors.tsv": train,
            "MINDsmall_train/news.tsv": news,
            "MINDsmall_dev/behaviors.tsv": dev,
            "MINDsmall_dev/news.tsv": news,
        },
        [
            ("U13740", "N19639", first),
            ("U13740", "N3", first),
            ("U1", "N19639", 1_573_808_122),
            ("U13740", "N55528", 1_573_463_158),
            ("U13740", "N35729", first),
            ("U1", "N55528", 1_573_506_358),
        ],
        [
            (
                "N55528",
                'The "Brands" Queen Elizabeth',
                'The "Brands" Queen Elizabeth. Shop the notebooks.. lifestyle. royals',
            ),
            ("N19639", "50 Worst Habits", "50 Worst Habits. health. weightloss"),
        ],
    )


def films(case: Any) -> Published:
    return Published(case.files, case.interactions, [(row[0], row[1], row[4]) for row in case.items])


FAMILY_FILES: dict[str, Callable[[str], Published]] = {
    "amazon-2014": amazon_2014,
    "amazon-2018": amazon_2018,
    "amazon-2023": amazon_2023,
    "goodreads": goodreads,
}

PUBLISHED: dict[str, Published] = {
    "ml-100k": films(ML_100K),
    "ml-1m": films(ML_1M),
    "ml-10m": films(ML_10M),
    **dict.fromkeys(("ml-20m", "ml-25m", "ml-32m", "ml-latest-small"), films(ML_25M)),
    "amazon-2014-beauty": amazon_2014("Beauty"),
    "amazon-2014-sports": amazon_2014("Sports_and_Outdoors"),
    "amazon-2014-toys": amazon_2014("Toys_and_Games"),
    "amazon-2023-games": amazon_2023("Video_Games"),
    "amazon-2023-instruments": amazon_2023("Musical_Instruments"),
    "amazon-2023-office": amazon_2023("Office_Products"),
    "amazon-scientific": unisrec("Scientific", "Industrial & Scientific"),
    "amazon-pantry": unisrec("Pantry", "Prime Pantry"),
    "amazon-instruments": unisrec("Instruments", "Musical Instruments"),
    "amazon-arts": unisrec("Arts", "Arts, Crafts & Sewing"),
    "amazon-office": unisrec("Office", "Office Products"),
    "yelp": yelp(),
    "steam": steam(),
    "lastfm-2k": lastfm(),
    "book-crossing": book_crossing(),
    "kuairec": kuairec(),
    **dict.fromkeys(("mind-large", "mind-small"), mind()),
    **{f"{name}:{member}": make(member) for name, make in FAMILY_FILES.items() for member in FAMILIES[name].members},
}
"""The files of every dataset that `fedrec data list` names, but the generated one."""

LISTED = [name for name in SOURCES if name != "demo"] + [
    f"{family.name}:{member}" for family in FAMILIES.values() for member in family.members
]
