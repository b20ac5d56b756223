"""What films are called, and what an encoder reads of them."""

import polars as pl


def add_text(items: pl.DataFrame) -> pl.DataFrame:
    """Add `text`, what an encoder reads of a film: title with its article in front, year, genres, plot if any."""
    parts = [
        pl.when(pl.col("year").is_null()).then(pl.col("title")).otherwise(pl.format("{} ({})", "title", "year")),
        pl.col("genres").str.replace_all("|", ", ", literal=True),
    ]
    if "plot" in items.columns:
        parts.append(pl.col("plot"))
    filled = [pl.when(part == "").then(None).otherwise(part) for part in parts]
    return items.with_columns(text=pl.concat_str(filled, separator=". ", ignore_nulls=True))


def film_titles(raw: pl.Series) -> pl.DataFrame:
    """`Matrix, The (1999)` → title `The Matrix`, year 1999. What does not look so is kept as it is."""
    pattern = r"^(?<name>.*?)(?:, (?<article>The|A|An|Le|La|Les|L'|Il|El|Das|Der|Die))?\s*\((?<year>\d{4})\)\s*$"
    found = raw.str.extract_groups(pattern)
    name, article = found.struct.field("name"), found.struct.field("article")
    spaced = pl.select(pl.when(article.str.ends_with("'")).then(article).otherwise(article + " ")).to_series()
    return pl.DataFrame(
        {
            "title": pl.select(pl.coalesce(spaced + name, name, raw.str.strip_chars())).to_series(),
            "year": found.struct.field("year").cast(pl.Int64),
        }
    )


def films(table: pl.DataFrame, genres: pl.Series) -> pl.DataFrame:
    """Items from `item_id`, titles as MovieLens writes them, and genres with `|` between them."""
    return add_text(
        pl.DataFrame({"item_id": table["item_id"], **film_titles(table["title"]).to_dict(), "genres": genres})
    )
