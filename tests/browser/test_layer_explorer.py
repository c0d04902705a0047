"""Does the Explorer of notebook 02 draw every picture of a layer in a browser?"""


def test_every_choice_changes_the_picture(lab):
    """Oracle: after each choice the picture's address in the page is another one; saved, it still shows."""
    lab.open("02_instrument_a_layer")
    lab.run_all()
    assert lab.outputs("error") == 0 and lab.shows_no_widget_error()
    layer, picture = lab.page.locator(".jp-OutputArea .widget-dropdown select").all()
    pictures = lab.pictures()
    assert len(pictures) == 1
    layer.select_option("model.8.cv2.conv")
    pictures = lab.wait_for_change(pictures)
    for kind in ("latent weights", "trajectories", "states", "inputs", "rhythm"):
        picture.select_option(kind)
        pictures = lab.wait_for_change(pictures)
    count = lab.shown_count()
    lab.reopen("02_instrument_a_layer")
    lab.wait_for_shown(count)
