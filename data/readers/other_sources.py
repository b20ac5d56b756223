"""The datasets of other publishers: each one is its files, the fields of its events and items, and its terms."""

from fedrec.data.readers.event_files import EventFields
from fedrec.data.readers.item_files import ItemFields
from fedrec.data.readers.mind import read_mind
from fedrec.data.readers.records import JSON_LINES, LITERALS, RecordFormat
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.source import Family, Publisher, Size, Source
from fedrec.data.readers.source_files import EventFiles, FileSet, ItemFile

TABS = RecordFormat("fields", separator="\t", quote=None)
UCSD = "https://mcauleylab.ucsd.edu/public_datasets/"

YELP = Source(
    "yelp",
    "reviews of businesses",
    FileSet(
        (
            EventFiles(
                ("yelp_academic_dataset_review.json",),
                JSON_LINES,
                EventFields("user_id", "business_id", "date", "stars", "%Y-%m-%d %H:%M:%S"),
            ),
        ),
        ItemFile(
            "yelp_academic_dataset_business.json",
            JSON_LINES,
            ItemFields(
                *("business_id", ("name",), ("categories", "city", "state")),
                {"categories": "categories", "city": "city", "state": "state"},
            ),
        ),
    ),
    publisher=Publisher(
        "Yelp",
        "Yelp Open Dataset. https://www.yelp.com/dataset",
        "Yelp's dataset agreement: academic use",
        "https://www.yelp.com/dataset",
    ),
    size=Size(1_987_929, 150_346, 6_990_280),
    by_hand="accept the agreement and take the JSON files of https://www.yelp.com/dataset",
)

STEAM = Source(
    "steam",
    "reviews of games; the times are days",
    FileSet(
        (
            EventFiles(
                ("steam_reviews.json",),
                LITERALS,
                EventFields("username", "product_id", "date", time_format="%Y-%m-%d"),
            ),
        ),
        ItemFile(
            "steam_games.json",
            LITERALS,
            ItemFields(
                *("id", ("title", "app_name"), ("genres", "tags", "developer")),
                {"genres": "genres", "developer": "developer", "price": "price"},
            ),
        ),
    ),
    f"{UCSD}data/steam/steam_reviews.json.gz",
    publisher=Publisher(
        "Steam",
        "W.-C. Kang and J. McAuley. ICDM 2018. doi:10.1109/ICDM.2018.00035",
        "no licence stated; cite",
        "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data",
    ),
    size=Size(2_567_538, 15_474, 7_793_069),
    more_urls=(f"{UCSD}data/steam/steam_games.json.gz",),
)

_GOODREADS = Publisher(
    "Goodreads",
    "M. Wan and J. McAuley. RecSys 2018. doi:10.1145/3240323.3240369",
    "academic use; no redistribution and no commercial use",
    "https://mengtingwan.github.io/data/goodreads.html",
)


def _goodreads_source(genre: str) -> Source:
    address = f"{UCSD}gdrive/goodreads/byGenre/goodreads_"
    return Source(
        f"goodreads:{genre}",
        "books on users' shelves",
        FileSet(
            (
                EventFiles(
                    (f"goodreads_interactions_{genre}.json",),
                    JSON_LINES,
                    EventFields("user_id", "book_id", "date_added", "rating", "%a %b %d %H:%M:%S %z %Y"),
                ),
            ),
            ItemFile(
                f"goodreads_books_{genre}.json",
                JSON_LINES,
                ItemFields(
                    *("book_id", ("title", "title_without_series"), ("description",)),
                    {"publisher": "publisher", "language": "language_code", "year": "publication_year"},
                ),
            ),
        ),
        f"{address}interactions_{genre}.json.gz",
        publisher=_GOODREADS,
        more_urls=(f"{address}books_{genre}.json.gz",),
    )


GOODREADS = Family(
    "goodreads",
    "GENRE",
    (
        *("children", "comics_graphic", "fantasy_paranormal", "history_biography", "mystery_thriller_crime", "poetry"),
        *("romance", "young_adult"),
    ),
    "books on users' shelves; 876,145 users, 2,360,655 books, 228,648,342 events in all",
    _goodreads_source,
)

LASTFM = Source(
    "lastfm-2k",
    "artists that users tagged; events without times, as who listened to whom, are not read",
    FileSet(
        (EventFiles(("user_taggedartists-timestamps.dat",), TABS, EventFields("userID", "artistID", "timestamp")),),
        ItemFile("artists.dat", TABS, ItemFields("id", ("name",))),
    ),
    "https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
    publisher=Publisher(
        "Last.fm (HetRec 2011)",
        "I. Cantador, P. Brusilovsky and T. Kuflik. RecSys 2011. doi:10.1145/2043932.2044016",
        "non-commercial use; cite Last.fm",
        "https://grouplens.org/datasets/hetrec-2011/",
    ),
    size=Size(1_892, 17_632, 186_479),
)

_BOOK_CROSSING = RecordFormat("fields", separator=";", encoding="latin-1", backslashes=True)

BOOK_CROSSING = Source(
    "book-crossing",
    "ratings of books, 0 for an implicit one; without times, the order of the file stands for them",
    FileSet(
        (EventFiles(("BX-Book-Ratings.csv",), _BOOK_CROSSING, EventFields("User-ID", "ISBN", None, "Book-Rating")),),
        ItemFile(
            "BX-Books.csv",
            _BOOK_CROSSING,
            ItemFields(
                *("ISBN", ("Book-Title",), ("Book-Author", "Year-Of-Publication", "Publisher")),
                {"author": "Book-Author", "year": "Year-Of-Publication", "publisher": "Publisher"},
            ),
        ),
    ),
    "http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip",
    publisher=Publisher(
        "Book-Crossing",
        "C.-N. Ziegler, S. M. McNee, J. A. Konstan and G. Lausen. WWW 2005. doi:10.1145/1060745.1060754",
        "research; cite",
        "http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
    ),
    size=Size(278_858, 271_379, 1_149_780),
    rules=Rules(times=False),
)

KUAIREC = Source(
    "kuairec",
    "short videos watched (the big matrix); the rating is the share that was watched; captions in Chinese",
    FileSet(
        (
            EventFiles(
                ("big_matrix.csv",),
                RecordFormat("fields"),
                EventFields("user_id", "video_id", "timestamp", "watch_ratio"),
            ),
        ),
        ItemFile(
            "kuairec_caption_category.csv",
            RecordFormat("fields"),
            ItemFields(
                "video_id",
                ("caption", "manual_cover_text"),
                (
                    *("manual_cover_text", "topic_tag", "first_level_category_name", "second_level_category_name"),
                    "third_level_category_name",
                ),
                {"category": "first_level_category_name"},
                blanks=("UNKNOWN", "[]"),
            ),
        ),
    ),
    publisher=Publisher(
        "KuaiRec", "C. Gao et al. CIKM 2022. doi:10.1145/3511808.3557220", "CC BY-SA 4.0", "https://kuairec.com"
    ),
    size=Size(7_176, 10_728, 12_530_806),
    by_hand="take KuaiRec.zip of version 2.0 from https://kuairec.com",
)

_MIND = Publisher(
    "MIND",
    "F. Wu et al. ACL 2020. doi:10.18653/v1/2020.acl-main.331",
    "Microsoft Research License: non-commercial research",
    "https://msnews.github.io",
)
_MIND_FILES = (
    "accept the terms of https://msnews.github.io and unpack the zips of training and development into one folder"
)


def _mind(name: str, size: Size) -> Source:
    return Source(name, "news clicked", read_mind, publisher=_MIND, size=size, by_hand=_MIND_FILES)


OTHERS = (
    YELP,
    STEAM,
    LASTFM,
    BOOK_CROSSING,
    KUAIREC,
    _mind("mind-large", Size(1_000_000, 161_013, 24_155_470)),
    _mind("mind-small", Size(50_000, 65_238, 347_727)),
)
