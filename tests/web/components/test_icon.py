"""The tag `icon`: a glyph beside its text, by a name or a variable."""

from django.template import Context, Template

LOAD = "{% load dashboard %}"


def test_icon_refers_to_the_sprite() -> None:
    expected = '<svg class="glyph" aria-hidden="true"><use href="#g-stop"></use></svg>'
    assert Template(LOAD + '{% icon "stop" %}').render(Context()) == expected
    assert Template(LOAD + "{% icon name %}").render(Context({"name": "stop"})) == expected


def test_icon_escapes_its_name() -> None:
    html = Template(LOAD + "{% icon name %}").render(Context({"name": '"><b>'}))
    assert "#g-&quot;&gt;&lt;b&gt;" in html
