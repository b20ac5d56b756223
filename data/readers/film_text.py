"""The titles of films, and the text that an encoder reads."""

import polars as pl


def add_text(items: pl.DataFrame) -> pl.DataFrame:
    """Add the column `text`, which the encoder reads: title, year, genres, and the plot if there is one."""
    parts = [
        pl.when(pl.col("year").is_null()).then(pl.col("title")).otherwise(pl.format("{} ({})", "title", "year")),
        pl.col("genres").str.replace_all("|", ", ", literal=True),
    ]
    if "plot" in items.columns:
        parts.append(pl.col("plot"))
    filled = [pl.when(part == "").then(None).otherwise(part) for part in parts]
    return items.with_columns(text=pl.concat_str(filled, separator=". ", ignore_nulls=True))


def parse_titles(raw: pl.Series) -> pl.DataFrame:
    """Parse titles: `Matrix, The (1999)` → title `The Matrix`, year 1999. Other forms are kept as they are."""
    pattern = r"^(?<name>.*?)(?:, (?<article>The|A|An|Le|La|Les|L'|Il|El|Das|Der|Die))?\s*\((?<year>\d{4})\)\s*$"
    parts = raw.str.extract_groups(pattern)
    name, article = parts.struct.field("name"), parts.struct.field("article")
    spaced = pl.select(pl.when(article.str.ends_with("'")).then(article).otherwise(article + " ")).to_series()
    return pl.DataFrame(
        {
            "title": pl.select(pl.coalesce(spaced + name, name, raw.str.strip_chars())).to_series(),
            "year": parts.struct.field("year").cast(pl.Int64),
        }
    )


def film_items(table: pl.DataFrame, genres: pl.Series) -> pl.DataFrame:
    """Build items from `item_id`, MovieLens's titles, and genres with `|` between them."""
    return add_text(
        pl.DataFrame({"item_id": table["item_id"], **parse_titles(table["title"]).to_dict(), "genres": genres})
    )
