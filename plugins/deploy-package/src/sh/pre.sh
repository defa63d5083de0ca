hook pre_deploy "$work/pre_deploy.sh"
hook PreDeploy.sh "$WINDLASS_FOLDER/PreDeploy.sh"
