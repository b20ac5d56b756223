"""The datasets of Amazon's reviews: every category of three releases, and the cuts of them that papers report on."""

from collections.abc import Callable
from dataclasses import replace

from fedrec.data.readers.amazon import files_2014, files_2018, files_2023
from fedrec.data.readers.raw import Frames, Root
from fedrec.data.readers.rules import Rules
from fedrec.data.readers.source import Family, Publisher, Size, Source
from fedrec.data.readers.unisrec import read_unisrec
from fedrec.data.split import Split

NO_LICENCE = "no licence stated; cite"

RELEASE_2014 = Publisher(
    "Amazon Reviews 2014",
    "R. He and J. McAuley. WWW 2016. doi:10.1145/2872427.2883037",
    NO_LICENCE,
    "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
)
RELEASE_2018 = Publisher(
    "Amazon Reviews 2018",
    "J. Ni, J. Li and J. McAuley. EMNLP 2019. doi:10.18653/v1/D19-1018",
    NO_LICENCE,
    "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/",
)
RELEASE_2023 = Publisher(
    "Amazon Reviews 2023",
    "Y. Hou et al. arXiv:2403.03952",
    NO_LICENCE,
    "https://amazon-reviews-2023.github.io",
)
UNISREC = Publisher(
    "Amazon Reviews 2018, as cut by UniSRec",
    "split: Y. Hou et al. KDD 2022. arXiv:2206.05941; "
    "reviews (Amazon 2018): J. Ni, J. Li and J. McAuley. EMNLP 2019. doi:10.18653/v1/D19-1018",
    NO_LICENCE,
    "https://github.com/RUCAIBox/UniSRec",
)

CATEGORIES_2014 = (
    *("Amazon_Instant_Video", "Apps_for_Android", "Automotive", "Baby", "Beauty", "Books", "CDs_and_Vinyl"),
    *("Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics"),
    *("Grocery_and_Gourmet_Food", "Health_and_Personal_Care", "Home_and_Kitchen", "Kindle_Store", "Movies_and_TV"),
    *("Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Sports_and_Outdoors"),
    *("Tools_and_Home_Improvement", "Toys_and_Games", "Video_Games"),
)
CATEGORIES_2018 = (
    *("AMAZON_FASHION", "All_Beauty", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Books", "CDs_and_Vinyl"),
    *("Cell_Phones_and_Accessories", "Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards"),
    *("Grocery_and_Gourmet_Food", "Home_and_Kitchen", "Industrial_and_Scientific", "Kindle_Store", "Luxury_Beauty"),
    *("Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments", "Office_Products", "Patio_Lawn_and_Garden"),
    *("Pet_Supplies", "Prime_Pantry", "Software", "Sports_and_Outdoors", "Tools_and_Home_Improvement"),
    *("Toys_and_Games", "Video_Games"),
)
CATEGORIES_2023 = (
    *("All_Beauty", "Amazon_Fashion", "Appliances", "Arts_Crafts_and_Sewing", "Automotive", "Baby_Products"),
    *("Beauty_and_Personal_Care", "Books", "CDs_and_Vinyl", "Cell_Phones_and_Accessories"),
    *("Clothing_Shoes_and_Jewelry", "Digital_Music", "Electronics", "Gift_Cards", "Grocery_and_Gourmet_Food"),
    *("Handmade_Products", "Health_and_Household", "Health_and_Personal_Care", "Home_and_Kitchen"),
    *("Industrial_and_Scientific", "Kindle_Store", "Magazine_Subscriptions", "Movies_and_TV", "Musical_Instruments"),
    *("Office_Products", "Patio_Lawn_and_Garden", "Pet_Supplies", "Software", "Sports_and_Outdoors"),
    *("Subscription_Boxes", "Tools_and_Home_Improvement", "Toys_and_Games", "Unknown", "Video_Games"),
)

_SNAP = "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
_UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/"
_HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023/resolve/main/"


def _source_2014(category: str) -> Source:
    return Source(
        f"amazon-2014:{category}",
        "reviews",
        files_2014(category),
        f"{_SNAP}reviews_{category}_5.json.gz",
        publisher=RELEASE_2014,
        more_urls=(f"{_SNAP}meta_{category}.json.gz",),
    )


def _source_2018(category: str) -> Source:
    return Source(
        f"amazon-2018:{category}",
        "reviews",
        files_2018(category),
        f"{_UCSD}categoryFilesSmall/{category}_5.json.gz",
        publisher=RELEASE_2018,
        more_urls=(f"{_UCSD}metaFiles2/meta_{category}.json.gz",),
    )


def _source_2023(category: str) -> Source:
    return Source(
        f"amazon-2023:{category}",
        "ratings",
        files_2023(category),
        f"{_HUB}benchmark/5core/rating_only/{category}.csv",
        publisher=RELEASE_2023,
        more_urls=(f"{_HUB}raw/meta_categories/meta_{category}.jsonl",),
    )


def _family(name: str, categories: tuple[str, ...], about: str, build: Callable[[str], Source]) -> Family:
    return Family(name, "CATEGORY", categories, about, build)


AMAZON_2014 = _family(
    "amazon-2014",
    CATEGORIES_2014,
    "5-core reviews, ratings or all reviews; 82.8 million reviews, 21.1 million users, 9.9 million products in all",
    _source_2014,
)
AMAZON_2018 = _family(
    "amazon-2018",
    CATEGORIES_2018,
    "5-core reviews, ratings or all reviews; 233.1 million reviews, 43.5 million users, 15.2 million products in all",
    _source_2018,
)
AMAZON_2023 = _family(
    "amazon-2023",
    CATEGORIES_2023,
    "ratings (0-core or 5-core, whole or split) or all reviews; 571.5 million reviews, 54.5 million users, "
    "48.2 million products in all",
    _source_2023,
)

FIVE_CORE = Rules(user_core=5, item_core=5)


def _benchmark(name: str, family: Family, category: str, size: Size) -> Source:
    """Declare a 5-core cut: the rules make it of all ratings, too, and change nothing in the publisher's own."""
    about = f"5-core of {family.name}:{category}"
    return replace(family.source(category), name=name, about=about, size=size, rules=FIVE_CORE, benchmark=True)


BENCHMARKS = (
    _benchmark("amazon-2014-beauty", AMAZON_2014, "Beauty", Size(22_363, 12_101, 198_502)),
    _benchmark("amazon-2014-sports", AMAZON_2014, "Sports_and_Outdoors", Size(35_598, 18_357, 296_337)),
    _benchmark("amazon-2014-toys", AMAZON_2014, "Toys_and_Games", Size(19_412, 11_924, 167_597)),
    _benchmark("amazon-2023-games", AMAZON_2023, "Video_Games", Size(94_762, 25_612, 814_586)),
    _benchmark("amazon-2023-instruments", AMAZON_2023, "Musical_Instruments", Size(57_439, 24_587, 511_836)),
    _benchmark("amazon-2023-office", AMAZON_2023, "Office_Products", Size(223_308, 77_551, 1_800_878)),
)


def _unisrec(name: str, folder: str, department: str, size: Size | None = None) -> Source:
    def read(root: Root) -> Frames:
        return read_unisrec(root, folder, department)

    return Source(
        name,
        f"{department}: the last 51 reviews of each user at most",
        read,
        publisher=UNISREC,
        size=size,
        by_hand=f"take the folder {folder} of UniSRec's released downstream data, {UNISREC.page}",
        split=Split(repeats=True),
    )


UNISREC_CUTS = (
    _unisrec("amazon-scientific", "Scientific", "Industrial & Scientific", Size(8_442, 4_385, 59_384)),
    _unisrec("amazon-pantry", "Pantry", "Prime Pantry"),
    _unisrec("amazon-instruments", "Instruments", "Musical Instruments"),
    _unisrec("amazon-arts", "Arts", "Arts, Crafts & Sewing"),
    _unisrec("amazon-office", "Office", "Office Products"),
)
