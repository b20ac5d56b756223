"""Items: look up, add, remove."""

from fastapi import Response

from fedrec.serving.http.context import Context
from fedrec.serving.http.routes.routers import (
    ADMIN_PROBLEMS,
    GET_PROBLEMS,
    K,
    Sent,
    admin_router,
    json_response,
    public_router,
)
from fedrec.serving.http.security_schemes import FOR_ADMINS
from fedrec.serving.live_catalogue import ItemRecord
from fedrec.serving.schema.answers import Answer
from fedrec.serving.schema.fields import ItemId
from fedrec.serving.schema.items import KnownItem, NewItem
from fedrec.serving.schema.questions import Question

router, administration = public_router("recommendations"), admin_router()


@router.get("/items/{item_id:id}/similar", response_model=Answer, responses=GET_PROBLEMS)
def similar_items(item_id: Sent, context: Context, k: K = 10) -> Response:
    """Return the items nearest to an item."""
    arm = context.arm_of()
    context.charge([Question(history=["one"], k=k)])
    context.require_row(item_id)
    return json_response(context.label_answer(context.engines[arm].similar(item_id, k), arm))


@router.get("/items/{item_id:id}", responses=GET_PROBLEMS)
def read_item(item_id: Sent, context: Context) -> KnownItem:
    """Return an item's title, text and columns."""
    return _known_item(context.engine.catalogue.record(context.require_row(item_id)))


@administration.put("/items/{item_id:id}", responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def put_item(item_id: ItemId, new: NewItem, context: Context) -> KnownItem:
    """Offer an item from now on, encoded from its text; it replaces one with the same id. No training is needed."""
    engine = context.services.manager.put_item(ItemRecord(item_id, new.title, new.text or new.title, new.columns))
    row = engine.catalogue.find_row(item_id)
    assert row is not None
    return _known_item(engine.catalogue.record(row))


@administration.delete("/items/{item_id:id}", status_code=204, responses=ADMIN_PROBLEMS, openapi_extra=FOR_ADMINS)
def drop_item(item_id: Sent, context: Context) -> None:
    """Remove an item."""
    if not context.services.manager.drop_item(item_id):
        context.require_row(item_id)


def _known_item(record: ItemRecord) -> KnownItem:
    return KnownItem(item_id=record.item_id, title=record.title, text=record.text, columns=dict(record.columns))
