"""Who is signed in. The demo lets anybody be one of a few users; a shop of yours asks for more than a name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from functools import wraps
from urllib.parse import parse_qs, quote, urlencode
from uuid import uuid4

from attrs import frozen
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from .pages import page
from .shop import shop_of

_WEEK = 7 * 24 * 3600
_HOUR = 3600
# Bytes of a form: room for thousands of items.
_LARGEST_FORM = 256 * 1024


class SignedCookie(AuthenticationBackend):
    """Takes the user from a cookie that this shop signed: nothing else that a browser sends says who it is."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Return who is signed in, if anybody is."""
        found = conn.app.state.shop.signer.read("user", conn.cookies.get("user", ""), _WEEK)
        return None if found is None else (AuthCredentials(["user"]), SimpleUser(found[0]))


def signed_in(view: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Show a page to who is signed in, and lead others to signing in, and back."""

    @wraps(view)
    async def show(request: Request) -> Response:
        if request.user.is_authenticated:
            return await view(request)
        # What a form sends cannot be opened again by its address.
        query = f"?{urlencode({'next': here(request)})}" if request.method == "GET" else ""
        return RedirectResponse(f"/sign-in{query}", 303)

    return show


def here(request: Request) -> str:
    """Return the address of a page without its host, which is whatever the browser says."""
    query = request.scope["query_string"].decode("latin-1")
    return f"{quote(request.scope['path'])}{query and f'?{query}'}"


def user_of(request: Request) -> str:
    """Return who is signed in."""
    return request.user.display_name  # type: ignore[no-any-return]  # Starlette's requests tell no types.


@frozen
class Asked:
    """What a form asks for.

    Attributes:
        subject: The pack, the item or the quote.
        title: What to call it on a page.
        items: The ids of what is sold or shipped.
        price: What the page said that it costs, USD: of one pack, or of a shipment. None for a sale.
        deal_id: Of the deal that it will be, or is already.
    """

    subject: str
    title: str
    items: tuple[str, ...]
    price: Decimal | None
    deal_id: str


def form_token(
    request: Request, kind: str, subject: str, title: str, *, items: Iterable[str] = (), price: Decimal | None = None
) -> str:
    """Return what a form that moves money or goods comes with.

    It says what for and for whom, so no other site and no other user can make one. It has the id of the deal that it
    will be, so it is good for one: at a second use that deal is there already.
    """
    text = None if price is None else str(price)
    return shop_of(request).signer.sign(kind, user_of(request), subject, title, list(items), text, uuid4().hex)


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form. Starlette's own `form()` needs one more package, for uploads."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise HTTPException(413, "This form sends too much at once.")
    return parse_qs(body.decode(errors="replace"))


def read_token(request: Request, kind: str, form: dict[str, list[str]]) -> Asked:
    """Return what a form asks for."""
    found = shop_of(request).signer.read(kind, form.get("token", [""])[0], _HOUR)
    if found is None or found[0] != user_of(request):
        raise HTTPException(403, "This form has expired. Please go back and open it again.")
    _, subject, title, items, price, deal_id = found
    return Asked(subject, title, tuple(items), None if price is None else Decimal(price), deal_id)


async def sign_in(request: Request) -> Response:
    """Show who there is, or sign one in."""
    users = shop_of(request).users
    if request.method != "POST":
        return page(request, "sign_in.html", users=users, next=request.query_params.get("next", ""))
    form = await read_form(request)
    user_id = form.get("user", [""])[0]
    if user_id not in users:
        raise HTTPException(403, "There is no such user.")
    response = RedirectResponse(_local(form.get("next", [""])[0]), 303)
    cookie = shop_of(request).signer.sign("user", user_id)
    # Not sent along by forms of other sites, nor to be read by a script.
    is_https = request.scope["scheme"] == "https"
    response.set_cookie("user", cookie, max_age=_WEEK, httponly=True, samesite="lax", secure=is_https)
    return response


def _local(address: str) -> str:
    """Return an address within this shop, whatever a link to signing in says."""
    # Browsers take a backslash for a slash, and leave out control characters.
    if not address.startswith("/") or address[1:2] in ("/", "\\") or not address.isprintable():
        return "/items"
    return address


async def sign_out(_: Request) -> Response:
    """Forget who is signed in."""
    response = RedirectResponse("/", 303)
    response.delete_cookie("user")
    return response
