hook Deploy.sh "$WINDLASS_FOLDER/Deploy.sh"
hook deploy "$work/deploy.sh"
switched=yes
point_current "$WINDLASS_NAME" || give_up no-switch "$WINDLASS_INSTALL_DIR/current cannot be switched"
note "current is $WINDLASS_NAME"
hook PostDeploy.sh "$WINDLASS_FOLDER/PostDeploy.sh"
hook post_deploy "$work/post_deploy.sh"
record succeeded
